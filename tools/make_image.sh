#!/usr/bin/env bash
# Builds the three images with docker, podman or buildah, whichever is installed.
#   BASE_IMAGE   any Debian bookworm (default debian:bookworm-slim)
#   PREFIX       prefix of the images' names, such as registry.example.com/team/ (default none)
#   TARGETS      which images (default "spark task serving")
#   BUILD_ARGS   further flags for the builder, such as "--build-arg CLASS_ARCHIVE=false --secret id=maven,src=settings.xml"
#   PUSH         true sends each image to the registry that PREFIX begins with (default false)
#   REGISTRY_USER, REGISTRY_PASSWORD   credentials for the registry; without them the builder's existing login is used
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
base=${BASE_IMAGE:-debian:bookworm-slim}
builder=
for found in docker podman buildah; do
  if $found info >/dev/null 2>&1; then builder=$found; break; fi # `info` fails if docker's daemon does not run
done
if [ -z "$builder" ]; then
  echo "make image: none of docker, podman, buildah works here; install one of them, or start docker's daemon" >&2
  exit 2
fi
if [ "${PUSH:-false}" = true ]; then
  case ${PREFIX:-} in
  */) ;;
  *)
    echo "make image: PUSH=true needs PREFIX, such as registry.example.com/team/; it is '${PREFIX:-}'" >&2
    exit 2
    ;;
  esac
  if [ -n "${REGISTRY_USER:-}" ]; then
    printf %s "${REGISTRY_PASSWORD:-}" | $builder login --username "$REGISTRY_USER" --password-stdin "${PREFIX%%/*}"
  fi
fi
# Files and images get the commit's time and not the build's, so that builds are reproducible; docker reads it from the environment.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
case $builder in
docker) command="docker build" ;;
*) command="$builder build --layers --timestamp $SOURCE_DATE_EPOCH" ;;
esac
for target in ${TARGETS:-spark task serving}; do
  image=${PREFIX:-}spark-kfp-$target:$version
  echo "make image: $image by $builder"
  # shellcheck disable=SC2086
  $command ${BUILD_ARGS:-} --build-arg "BASE_IMAGE=$base" -f Dockerfile.spark --target "$target" -t "$image" .
  if [ "${PUSH:-false}" = true ]; then $builder push "$image"; fi
done
