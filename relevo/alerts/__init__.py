"""Alerts: what is wrong, told once per incident, and told again when it is over."""
