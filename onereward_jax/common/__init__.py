"""Config loading, RNG streams, atomic files, error handling: nothing specific to the method."""
