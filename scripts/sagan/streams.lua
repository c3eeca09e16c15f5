--- streams.lua - the one list of random streams. A random number is a function of (seed, stream, clock, index) and of
--- nothing else, so two draws are independent exactly if their streams or clocks differ. Parameters use streams above 2^20,
--- from a hash of their name.
return {
    d_noise = 1,   -- z of the D step
    d_labels = 2,  -- labels of the D step's fakes
    pixels = 3,    -- flips; and stream 4: dequantisation noise
    g_noise = 5,   -- z of the G step
    g_labels = 6,
    sample_noise = 16, -- fixed z of the sample grids
    knockout = 17, -- order of shuffled attention
    standing_noise = 18, -- batches for standing statistics
    standing_labels = 19,
    score_noise = 20, -- z of the pictures that are scored
    bootstrap = 21,
    data_order = 32,
    classifier_order = 33, -- of the images that the scores' classifier is trained on
    bench = 48,
}
