"""Text-prompted audio separation: name a sound, get that sound and the rest."""
