#!/bin/bash
# Makes the archive of the classes that a step loads: rehearse.sh FILE. See entrypoint.sh for why the jars are named one by one.
set -euo pipefail
export SPARK_CONF_DIR=/none SPARK_LOCAL_IP=127.0.0.1 SPARK_LOCAL_HOSTNAME=localhost
find "$SPARK_HOME/jars/" -exec touch -d @0 {} +
printf -v jars '%s:' "$SPARK_HOME"/jars/*.jar
cd "$(mktemp -d)"
SPARK_SUBMIT_OPTS="-XX:ArchiveClassesAtExit=$1 -XX:TieredStopAtLevel=1 -Xlog:cds=error -Xlog:cds+dynamic=error" "$SPARK_HOME/bin/spark-submit" \
  --master 'local[*]' --driver-memory 1g \
  --conf spark.ui.enabled=false --conf spark.driver.host=127.0.0.1 --conf spark.log.level=OFF \
  --conf "spark.driver.defaultExtraClassPath=${jars%:}" /build/rehearse_cluster.py "$PWD/steps"
chmod 644 "$1"
