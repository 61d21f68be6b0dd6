"""The LAION-fMRI object masks as one lazy, labelled ``xarray.DataArray`` (mask, y, x)."""
