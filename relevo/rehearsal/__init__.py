"""The rehearsal: a whole rollout on a database of its own, in compressed time, all others played by stand-ins."""
