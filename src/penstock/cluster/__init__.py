"""Clusters of vectors: k-means with the interface of scikit-learn, which it does not need."""

from penstock.cluster._lloyd import nearest_cells
from penstock.cluster._passes import in_threads
from penstock.cluster.kmeans import KMeans

__all__ = ["KMeans", "in_threads", "nearest_cells"]
