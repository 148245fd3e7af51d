#!/usr/bin/env bash
# Runs a selection of the cluster tests on a new kind cluster: creates the cluster, installs MinIO and the Spark operator, builds and loads the
# images, runs the tests and deletes the cluster. Needs docker, kind, kubectl and helm on PATH, 4 CPUs, 8 GB of memory and the network.
#
# The commands are those of the tools' own documentation and have not been tried together yet; the tests themselves were run on another
# Kubernetes (see docs/faults.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CLUSTER=spark-kfp-tests
OPERATOR_VERSION=2.5.2

for program in docker kind kubectl helm; do
    command -v "$program" >/dev/null || { echo "make kind: $program is not on PATH; install it" >&2; exit 2; }
done

folder=$(mktemp -d)
tunnel=
clean_up() {
    [ -z "$tunnel" ] || kill "$tunnel" 2>/dev/null || true
    kind delete cluster --name "$CLUSTER" || true
    rm -rf "$folder"
}
trap clean_up EXIT

export KUBECONFIG=$folder/kubeconfig # so that no other cluster can be changed by mistake
kind create cluster --name "$CLUSTER" --wait 5m

# The name, the namespace and the credentials are those of the manifests in tests/e2e/cluster.
helm install minio minio --repo https://charts.min.io/ --namespace minio --create-namespace --wait \
    --set mode=standalone,replicas=1,persistence.enabled=false,resources.requests.memory=512Mi \
    --set rootUser=minio,rootPassword=minio12345
helm install spark-operator spark-operator --repo https://kubeflow.github.io/spark-operator --version "$OPERATOR_VERSION" \
    --namespace spark-operator --create-namespace --wait --set-json 'spark.jobNamespaces=[""]'

PREFIX=localhost/ bash tools/make_image.sh
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
kind load docker-image --name "$CLUSTER" "localhost/spark-kfp-spark:$version" "localhost/spark-kfp-task:$version" "localhost/spark-kfp-serving:$version"

kubectl --namespace minio port-forward service/minio 9000:9000 >/dev/null &
tunnel=$!
kubectl create namespace spark-kfp
export AWS_ENDPOINT_URL=http://127.0.0.1:9000 AWS_ACCESS_KEY_ID=minio AWS_SECRET_ACCESS_KEY=minio12345
pytest -m "cluster and selection" tests/e2e
