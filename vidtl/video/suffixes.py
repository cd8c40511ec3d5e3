"""Endings of the names of readable files, in lower case; names match in any letter case."""

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".ts", ".3gp"),
    *(".wmv", ".asf", ".mts", ".m2ts", ".m2t", ".vob", ".ogv", ".mxf", ".dv", ".gif", ".apng", ".ivf", ".y4m"),
    *(".h264", ".264", ".avc", ".h265", ".265", ".hevc"),
    *(".m1v", ".m2v", ".mpv", ".mjpeg", ".mjpg", ".3g2", ".qt", ".mp4v"),
)
"""Videos, in the order in which a name pattern that ends with `.*` tries them."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Images; the content may be another of the formats that `vidtl.video.images` reads."""
