package dev.tidemark.bench.cli;

import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.iommufd.Iommufd;
import dev.tidemark.ffm.kvm.Kvm;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.kvm.KvmVm;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import dev.tidemark.ffm.vfio.VfioHostDevice;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** Says what this host can do and, for each thing that it cannot, why and what would enable it. */
@Command(
    name = "probe",
    description = {
      "Shows what this host can track with, and what is missing and why; of each VFIO device who"
          + " would track it, and what would keep a guest that has it alone from being migrated.",
      "Each VFIO device is opened, asked and closed again: opening a PCI device may reset it. One"
          + " that somebody has open is not touched. A VMM that starts meanwhile may find a device"
          + " busy."
    },
    mixinStandardHelpOptions = true)
final class ProbeCommand implements Callable<Integer> {
  /** The findings about KVM. */
  private static final List<String> KVM = List.of("kvm", "kvmManualProtect", "kvmDirtyRing");

  @Option(names = "--json", description = "one JSON object")
  private boolean json;

  /** One thing that the host has or lacks. */
  private record Finding(boolean available, String detail) {
    static Finding of(Optional<String> missing, String detail) {
      return missing.map(why -> new Finding(false, why)).orElse(new Finding(true, detail));
    }
  }

  @Override
  public Integer call() {
    Map<String, Object> host = new LinkedHashMap<>();
    host.put("kernel", System.getProperty("os.name") + " " + System.getProperty("os.version"));
    host.put("architecture", System.getProperty("os.arch"));
    host.put("java", System.getProperty("java.vm.version"));
    host.put("pageSize", Pages.SIZE);
    host.put("bitmapOperations", Bitmaps.description());
    Map<String, Finding> findings = findings();
    List<ProbedDevice> devices = VfioHostDevice.list().stream().map(ProbedDevice::probe).toList();
    if (json) {
      findings.forEach((name, finding) -> host.put(name, finding));
      host.put("vfioDevices", devices.stream().map(ProbedDevice::data).toList());
      System.out.println(Json.of(host));
      return Tidemark.DONE;
    }
    host.forEach(
        (name, value) ->
            System.out.printf(Locale.ROOT, "%-24s %s%n", name, Text.line(String.valueOf(value))));
    findings.forEach(
        (name, finding) ->
            System.out.printf(
                Locale.ROOT,
                "%-24s %-4s %s%n",
                name,
                finding.available ? "yes" : "no",
                Text.line(finding.detail)));
    devices.forEach(device -> System.out.print("\n" + device));
    return Tidemark.DONE;
  }

  private static Map<String, Finding> findings() {
    Map<String, Finding> findings = new LinkedHashMap<>();
    kvm(findings);
    Userfaultfd.Support support = Userfaultfd.probe();
    findings.put(
        "userfaultfd",
        Finding.of(
            support.missing(),
            String.join(", ", UserfaultfdUapi.featureNames(support.features()))));
    findings.put(
        "userfaultfdWpAsync",
        Finding.of(support.missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC), "--guest process"));
    findings.put("pagemapScan", Finding.of(Pagemap.missing(), "--guest process"));
    findings.put("iommufd", iommufd());
    int devices = VfioHostDevice.list().size();
    findings.put(
        "vfio",
        devices == 0
            ? new Finding(
                false, "no device: needs CONFIG_VFIO, an IOMMU, and a device bound to vfio-pci")
            : new Finding(true, devices == 1 ? "1 device" : devices + " devices"));
    return findings;
  }

  private static void kvm(Map<String, Finding> findings) {
    Optional<String> missing = Kvm.missing();
    if (missing.isPresent()) {
      for (String name : KVM) {
        findings.put(name, Finding.of(missing, ""));
      }
      return;
    }
    findings.put("kvm", new Finding(true, "--guest kvm --tracking plain"));
    try (Kvm kvm = Kvm.open();
        KvmVm vm = kvm.createVm()) {
      int manual = vm.checkExtension(KvmConstants.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
      findings.put(
          "kvmManualProtect",
          manual > 0
              ? new Finding(true, "--tracking manual, mask " + manual)
              : new Finding(false, "no KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: needs Linux 5.2"));
      int ring =
          Math.max(
              vm.checkExtension(KvmConstants.KVM_CAP_DIRTY_LOG_RING_ACQ_REL),
              vm.checkExtension(KvmConstants.KVM_CAP_DIRTY_LOG_RING));
      findings.put(
          "kvmDirtyRing",
          ring > 0
              ? new Finding(true, "--tracking ring, up to " + ring + " bytes per vCPU")
              : new Finding(false, "no KVM_CAP_DIRTY_LOG_RING: needs Linux 5.11"));
    } catch (LinuxException e) {
      for (String name : KVM) {
        findings.put(name, new Finding(false, e.getMessage()));
      }
    }
  }

  private static Finding iommufd() {
    Optional<String> missing = Iommufd.missing();
    if (missing.isPresent()) {
      return Finding.of(missing, "");
    }
    try (Iommufd iommufd = Iommufd.open()) {
      return new Finding(
          true,
          (iommufd.hasDirtyTracking()
                  ? "page tables track dirty pages where a device's IOMMU can"
                  : "no IOMMU_HWPT_GET_DIRTY_BITMAP: needs Linux 6.7")
              + (iommufd.hasMapFile()
                  ? ", memory can be mapped by file"
                  : ", no IOMMU_IOAS_MAP_FILE (Linux 6.13)"));
    } catch (LinuxException e) {
      return new Finding(false, e.getMessage());
    }
  }
}
