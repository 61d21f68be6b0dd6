"""In-silico fMRI: what the brain would answer to videos, by BERG's ``fmri-bmd-s3d``.

The encoding model of the Brain Encoding Response Generator [1]_, trained on the BOLD Moments
Dataset [2]_: S3D features of a 3-second video [3]_, 100 principal components, a linear regression
for each voxel.

.. [1] https://github.com/gifale95/BERG
.. [2] https://doi.org/10.1038/s41467-024-50310-3
.. [3] https://doi.org/10.48550/arXiv.1712.04851
"""
