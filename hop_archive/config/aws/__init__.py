"""What the archive asks of AWS besides S3: secrets, where an RDS database is, and its log files.

boto3 is imported when something is asked, never before. It reads the environment itself: besides the variables of the
default chain (``AWS_PROFILE``, keys, roles) it honours ``AWS_ENDPOINT_URL`` and ``AWS_ENDPOINT_URL_SECRETS_MANAGER``
(``_RDS``, ``_S3``), by which tests and local stand-ins are reached.
"""
