"""The sections of docs/oracles.md: functions that yield rows."""
