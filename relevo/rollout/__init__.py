"""The rollout: who goes to v2 when, what must hold for that, and who goes back. Deciding is apart from doing."""
