"""`onelayer/ALFWorld-v0`: household tasks as text games, generated or official."""
