"""How cost grows: with the number of images, with batch size, text length and threads. Ours alone, no peer."""
