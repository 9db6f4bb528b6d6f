"""The Kubernetes manifests of docs/distributed.md name what their processes need."""

import yaml

from tests.docs.pages import ROOT, blocks

MANIFESTS = blocks((ROOT / "docs/distributed.md").read_text(), "yaml")


def test_a_slice_has_its_chips_and_volumes() -> None:
    (job,) = yaml.safe_load(MANIFESTS[0])["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = container["resources"]["limits"]["google.com/tpu"] * spec["completions"]
    assert chips == rows * columns
    assert f"--config.mesh.num_slices={job['replicas']}" in container["command"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_processes_on_gpus_belong_to_one_job_and_may_ask_for_it() -> None:
    jobs, account, role, binding = yaml.safe_load_all(MANIFESTS[1])
    (job,) = jobs["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    # JAX takes the number of processes from the one Job that the pod belongs to.
    assert job["replicas"] == 1
    assert spec["parallelism"] == spec["completions"]
    name = account["metadata"]["name"]
    assert spec["template"]["spec"]["serviceAccountName"] == name
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [name]
    allowed = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # `list_namespaced_pod` and `read_namespaced_job`, in jax/_src/clusters/k8s_cluster.py.
    assert allowed >= {("", "pods", "list"), ("batch", "jobs", "get")}
