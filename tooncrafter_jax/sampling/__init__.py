"""From a request to frames: what is asked for, the compiled parts, and the pipeline that runs them."""
