#!/usr/bin/env bash
# What the archiver needs on the Kafka cluster that it reads: see topics, read them, commit its group's offsets, and look
# at settings and at other groups' offsets, which hop-archive snapshot keeps (without those rights, it does without).
# Nothing else: it creates, writes and deletes nothing there. Hopskotch gives the same with a read credential;
# this is for a cluster of your own with an authorizer.
#
#   deploy/kafka/acls.sh kafka.example.org:9092 archiver [GROUP]        GROUP: as group_id of the source stanza
#
# Needs Kafka's own programs on PATH, and, for a cluster that wants a login, KAFKA_ADMIN_CONFIG: a file for
# --command-config. Run again, it changes nothing.
set -euo pipefail

server=${1:?bootstrap server, such as kafka.example.org:9092}
user=${2:?name of the user, without User:}
group=${3:-hop_archive}

acls() {
    kafka-acls.sh --bootstrap-server "$server" ${KAFKA_ADMIN_CONFIG:+--command-config "$KAFKA_ADMIN_CONFIG"} \
        --add --allow-principal "User:$user" "$@"
}

# All topics; with --resource-pattern-type prefixed --topic gcn. just those that begin so. READ brings DESCRIBE,
# but a topic that may be seen and not read should show up as such.
acls --operation Read --operation Describe --operation DescribeConfigs --topic '*'
# Committed for outside monitoring, never read back.
acls --operation Read --group "$group"
# Where readers stand, for restoring them with their topics.
acls --operation Describe --group '*'
