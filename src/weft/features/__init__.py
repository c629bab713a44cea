"""Step 3, features: codecs turn the values of each column into codes; codes are stored and batched."""
