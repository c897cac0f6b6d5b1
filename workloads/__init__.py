"""What is asked of a server: programs, generators, recorded runs, arrivals, token-exact contents."""
