"""What every stage needs and none owns: argument checks, random states, batches, figures."""
