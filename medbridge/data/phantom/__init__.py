"""PhantomCXR: a procedural chest film benchmark, deterministic by seed, always called synthetic. [ours]"""
