"""Create the buckets named as arguments, where they are not there yet. For compose.yaml's S3 server.

Which server, and who asks: boto3's own variables (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, ...).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import boto3


def main(buckets: Sequence[str]) -> None:
    """Create each; run again, nothing changes."""
    s3 = boto3.client("s3")
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for bucket in buckets:
        if bucket not in there:
            s3.create_bucket(Bucket=bucket)


if __name__ == "__main__":
    main(sys.argv[1:])
