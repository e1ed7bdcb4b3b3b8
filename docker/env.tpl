# What compose.yaml takes from you. Copy it to docker/.env (which git and the image ignore), fill it in, then
# start or restart: docker compose up --detach --build
# In single quotes a value is taken as it stands, whatever characters it has.

# Hopskotch's credential, from https://my.hop.scimma.org (read is enough).
HOP_ARCHIVE_PROD_USERNAME=''
HOP_ARCHIVE_PROD_PASSWORD=''
# A consumer group of your own, so that production's monitoring is not misled: the username, a dash, any word.
HOP_ARCHIVE_PROD_GROUP=''

# The real Hopskotch as the source, the database here, objects in a mock of S3 (files in a volume).
HOP_ARCHIVE_SOURCE=hop-prod
HOP_ARCHIVE_DATABASE=local-db
HOP_ARCHIVE_STORE=mock-store

# Stay in a run that follows all topics: messages are archived about a second after they were published.
HOP_ARCHIVE_FOLLOW_S=600
