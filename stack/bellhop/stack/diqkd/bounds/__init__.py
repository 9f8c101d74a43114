"""How many secret bits a run is worth: each bound with its theorem, assumptions and constants."""
