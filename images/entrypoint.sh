#!/bin/bash
# What Spark on Kubernetes expects of its image: `driver ...` and `executor`, with what Spark puts into the environment.
# Source of the contract: kubernetes/dockerfiles/spark/entrypoint.sh of Apache Spark 4.
set -e
cd /tmp

# Java takes its archive of classes only with the class path that it was made with, or a longer one, so the jars are named in this order.
printf -v jars '%s:' "$SPARK_HOME"/jars/*.jar
jars=${jars%:}
archive=/opt/spark-kfp/spark.jsa
share=()
if [ -f "$archive" ]; then share=("-XX:SharedArchiveFile=$archive" -Xshare:auto -Xlog:cds=off -Xlog:cds+dynamic=off); fi

case "${1:-}" in
driver)
  shift
  export SPARK_SUBMIT_OPTS="${share[*]} ${SPARK_SUBMIT_OPTS:-}"
  export SPARK_LAUNCHER_OPTS="-XX:TieredStopAtLevel=1 ${SPARK_LAUNCHER_OPTS:-}"
  exec tini -s -- "$SPARK_HOME/bin/spark-submit" \
    --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \
    --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" \
    --conf "spark.driver.defaultExtraClassPath=$jars" \
    --deploy-mode client "$@"
  ;;
executor)
  options=()
  while IFS= read -r line; do options+=("$line"); done < <(
    env | grep '^SPARK_JAVA_OPT_' | sort -t_ -k4 -n | sed 's/[^=]*=\(.*\)/\1/'
  )
  exec tini -s -- "$JAVA_HOME/bin/java" "${share[@]}" "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
    -cp "${SPARK_CLASSPATH:+$SPARK_CLASSPATH:}$jars:${SPARK_CONF_DIR:-$SPARK_HOME/conf}" \
    org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
    --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
    --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
    --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
  ;;
*)
  exec "$@"
  ;;
esac
