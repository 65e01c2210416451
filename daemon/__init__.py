"""The DICOM node: receive, queue, segment, deliver."""
