"""How fast the move is, beside what it could be compared with; not part of the wheel."""
