"""Studies: the same experiment in several variants, from several seeds, as one table and one figure."""
