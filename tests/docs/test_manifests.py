"""The Kubernetes manifests of docs/distributed.md name what their processes need."""

import signal

import yaml

from tests.docs.pages import ROOT, blocks, commands, containers

PAGE = ROOT / "docs/distributed.md"
MANIFESTS = blocks(PAGE.read_text(), "yaml")


def test_a_slice_has_its_chips_and_volumes() -> None:
    (job,) = yaml.safe_load(MANIFESTS[0])["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = container["resources"]["limits"]["google.com/tpu"] * spec["completions"]
    assert chips == rows * columns
    assert f"--config.mesh.num_slices={job['replicas']}" in container["args"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_pods_keep_the_command_of_the_image() -> None:
    # A `command` would replace the entrypoint, and with it the process that passes signals on.
    assert "command:" not in "".join(MANIFESTS)
    for line in containers(list(yaml.safe_load_all(MANIFESTS[0]))):
        assert line[0] == "train"


def test_hosts_without_a_common_disk_keep_data_and_run_in_a_bucket() -> None:
    (job,) = yaml.safe_load(MANIFESTS[0])["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]} == {"emptyDir"}
    for command in commands(PAGE):
        flags = dict(word.partition("=")[::2] for word in command.words)
        if "--distributed" in flags and "/scratch" not in str(command):
            assert flags["--workdir"].startswith("gs://")
            assert flags["--config.data.data_dir"].startswith("gs://")


def test_what_is_told_to_go_is_restarted_without_being_counted() -> None:
    spec = yaml.safe_load(MANIFESTS[0])["spec"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    (job,) = spec["replicatedJobs"]
    inner = job["template"]["spec"]
    (container,) = inner["template"]["spec"]["containers"]
    evicted, stopped = inner["podFailurePolicy"]["rules"]
    assert evicted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert stopped["onExitCodes"]["containerName"] == container["name"]
    assert stopped["onExitCodes"]["values"] == [128 + signal.SIGTERM]
    # Kubernetes takes such a policy only with it.
    assert inner["template"]["spec"]["restartPolicy"] == "Never"


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
