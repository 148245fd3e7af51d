"""Runs all steps on a few made-up rows, then what only a driver in a cluster does, with a cluster and a store that do not answer."""

import contextlib
import sys
import time
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext

from spark_jobs import rehearsal

NOBODY = "http://127.0.0.1:9"
CLUSTER = {
    "spark.kubernetes.namespace": "none",
    "spark.kubernetes.container.image": "none",
    "spark.kubernetes.executor.disableConfigMap": "true",
    "spark.executor.instances": "1",
    "spark.executor.maxNumFailures": "1000",
    "spark.authenticate": "true",
    "spark.ui.enabled": "true",
    "spark.ui.port": "0",
    "spark.hadoop.fs.s3a.endpoint": NOBODY,
    "spark.hadoop.fs.s3a.access.key": "none",
    "spark.hadoop.fs.s3a.secret.key": "none",
    "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
    "spark.hadoop.fs.s3a.path.style.access": "true",
    "spark.hadoop.fs.s3a.attempts.maximum": "1",
    "spark.hadoop.fs.s3a.retry.limit": "0",
}
EXECUTOR = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"

rehearsal.main(Path(sys.argv[1]))
settings = SparkConf().setMaster(f"k8s://{NOBODY}").setAppName("rehearsal").setAll(list(CLUSTER.items()))
context = SparkContext(conf=settings)
java = context._jvm
java.java.lang.Class.forName(EXECUTOR)
path = java.org.apache.hadoop.fs.Path("s3a://none/file")
with contextlib.suppress(Py4JError):
    path.getFileSystem(context._jsc.hadoopConfiguration()).exists(path)
time.sleep(4)  # for the first executor to be asked for
context.stop()
