"""The library `testing`: the contracts that every store and every model keeps."""
