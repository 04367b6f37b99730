"""The mathematics of diffusion: schedule, noise, guidance, objective and solvers; it knows no network."""
