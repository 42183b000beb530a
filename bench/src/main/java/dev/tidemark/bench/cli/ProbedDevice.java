package dev.tidemark.bench.cli;

import dev.tidemark.engine.source.plan.Blockers;
import dev.tidemark.engine.source.plan.ContainerFacts;
import dev.tidemark.engine.source.plan.DeviceProbe;
import dev.tidemark.engine.source.plan.MachineFacts;
import dev.tidemark.engine.source.plan.OnOffAuto;
import dev.tidemark.engine.source.plan.TrackingPlan;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.vfio.VfioHostDevice;
import dev.tidemark.ffm.vfio.VfioUapi;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * A VFIO device of this host, with what would come of a guest that has it alone and all the host's
 * memory.
 *
 * @param device as sysfs tells it
 * @param probe what it says of itself; null if it could not be asked
 * @param refused why not; null if it was
 */
record ProbedDevice(VfioHostDevice device, DeviceProbe probe, String refused) {
  static ProbedDevice probe(VfioHostDevice device) {
    if (!Text.line(device.name()).equals(device.name())) {
      return new ProbedDevice(device, null, "no device has such a name");
    }
    try {
      return new ProbedDevice(device, DeviceProbe.of(device), null);
    } catch (LinuxException | IllegalStateException e) {
      return new ProbedDevice(device, null, e.getMessage());
    }
  }

  private MachineFacts alone() {
    ContainerFacts container =
        new ContainerFacts(
            probe.container(),
            false,
            probe.limits(),
            List.of(probe.facts(OnOffAuto.AUTO, OnOffAuto.AUTO)));
    return new MachineFacts(HostMemory.total(), List.of(), List.of(container));
  }

  private List<String> migration() {
    List<String> flags = new ArrayList<>();
    add(flags, VfioUapi.VFIO_MIGRATION_STOP_COPY, "STOP_COPY");
    add(flags, VfioUapi.VFIO_MIGRATION_P2P, "P2P");
    add(flags, VfioUapi.VFIO_MIGRATION_PRE_COPY, "PRE_COPY");
    return flags;
  }

  private void add(List<String> flags, long flag, String name) {
    if ((probe.migrationFlags() & flag) != 0) {
      flags.add(name);
    }
  }

  /** For JSON. */
  Map<String, Object> data() {
    Map<String, Object> data = new LinkedHashMap<>();
    data.put("name", device.name());
    data.put("driver", device.driver());
    data.put("cdev", device.cdev().orElse(null));
    data.put("group", device.group().orElse(null));
    data.put("refused", refused);
    if (probe != null) {
      MachineFacts alone = alone();
      Blockers.Device verdict = Blockers.of(alone).devices().getFirst();
      data.put("path", probe.path());
      data.put("container", probe.container());
      data.put("migration", migration());
      data.put("logsDma", probe.logsDma());
      data.put("pageTableTracks", probe.pageTableTracks());
      data.put("pageTable", probe.pageTable());
      data.put("type1Limits", probe.limits());
      data.put("tracker", TrackingPlan.of(alone).containers().getFirst().tracker());
      data.put("outcome", verdict.outcome());
      data.put("conditions", verdict.tree());
    }
    return data;
  }

  /** For people, several lines. */
  @Override
  public String toString() {
    StringBuilder text = new StringBuilder();
    text.append(String.format(Locale.ROOT, "VFIO device %s%n", Text.line(device.name())));
    line(text, "driver", device.driver());
    line(text, "character device", device.cdev().orElse("none"));
    line(text, "group", device.group().orElse("none"));
    if (probe == null) {
      line(text, "not asked", refused);
      return text.toString();
    }
    MachineFacts alone = alone();
    line(text, "asked", probe.path() + ", " + probe.container());
    line(text, "migration", migration().isEmpty() ? "no" : String.join(", ", migration()));
    line(text, "logs its DMA", probe.logsDma() ? "yes" : "no");
    line(
        text,
        "page table tracks",
        (probe.pageTableTracks() ? "yes: " : "no: ") + probe.pageTable());
    if (probe.limits() != null) {
      line(text, "largest bitmap", "for " + Units.size(probe.limits().bytes()) + " of memory");
    }
    line(text, "tracker", TrackingPlan.of(alone).containers().getFirst().tracker().toString());
    return text + Text.lines(Blockers.of(alone).devices().getFirst().tree().toString());
  }

  private static void line(StringBuilder text, String name, String value) {
    text.append(String.format(Locale.ROOT, "  %-20s %s%n", name, Text.line(value)));
  }
}
