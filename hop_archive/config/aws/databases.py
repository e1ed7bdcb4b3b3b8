"""Where an RDS database is, by the id of its instance."""

from __future__ import annotations

from dataclasses import dataclass

from hop_archive.config.aws.account import Memory, ask
from hop_archive.config.aws.refusals import Subject


@dataclass(frozen=True, slots=True)
class Instance:
    """What RDS says of an instance.

    Attributes:
        host: Its address.
        port: TCP port.
        name: The database that was made with it; empty where none was.
        user: Its master user.
        secret_arn: Where RDS itself keeps the master user's password; empty where it does not.
    """

    host: str
    port: int
    name: str
    user: str
    secret_arn: str


_MEMORY: Memory[Instance] = Memory()


def instance(instance_id: str, *, where: str, region: str, profile: str = "") -> Instance:
    """Return where an instance is, which is remembered for a minute.

    Args:
        instance_id: Its identifier.
        where: The stanza and key that name it, for messages.
        region: Where it is.
        profile: Whose credentials to ask with; empty: those of the default chain.

    Raises:
        MissingSettingError: There is no such instance here.
        ForbiddenError: There are no credentials, or they do not allow it.
        UnavailableError: AWS does not answer, or the instance is still being made.
    """
    subject = Subject(where, f'RDS instance "{instance_id}"', "rds:DescribeDBInstances", region, profile)

    def asked() -> Instance:
        answer = ask(subject, "rds", lambda rds: rds.describe_db_instances(DBInstanceIdentifier=instance_id))
        (found,) = answer["DBInstances"]
        endpoint = found.get("Endpoint", {})
        if not endpoint.get("Address"):
            status = found.get("DBInstanceStatus", "?")
            raise subject.unavailable(
                f"it has no address yet (its status is {status})", "Try again in a minute."
            )
        return Instance(
            host=endpoint["Address"],
            port=endpoint.get("Port", 5432),
            name=found.get("DBName", ""),
            user=found.get("MasterUsername", ""),
            secret_arn=found.get("MasterUserSecret", {}).get("SecretArn", ""),
        )

    return _MEMORY.get((instance_id, region, profile), asked)


def forget() -> None:
    """Ask anew next time."""
    _MEMORY.clear()
