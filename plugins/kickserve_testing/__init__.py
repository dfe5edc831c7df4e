"""The library `testing`: the contract of stores, as tests (`kickserve_testing.contract`)."""
