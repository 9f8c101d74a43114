"""Device-independent quantum key distribution: from rounds of a CHSH game to a secret key."""
