package dev.tidemark.bench.cli;

import dev.tidemark.engine.source.dma.DeviceLogSource;
import dev.tidemark.engine.source.plan.Blockers;
import dev.tidemark.engine.source.plan.ContainerFacts;
import dev.tidemark.engine.source.plan.DeviceFacts;
import dev.tidemark.engine.source.plan.DeviceProbe.LogTrial;
import dev.tidemark.engine.source.plan.DeviceRanges;
import dev.tidemark.engine.source.plan.MachineFacts;
import dev.tidemark.engine.source.plan.TrackingPlan;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;

/** Says who would track what a guest's devices write, and why it can be migrated or not. */
@Command(
    name = "explain",
    description = {
      "Explains why a guest can be migrated or not, from its devices and what its operator decided.",
      "Exit status: 0 it can, 1 it cannot or a device could not be asked, 2 wrong usage.",
      "Each VFIO device of this host is opened, asked and closed again: opening a PCI device may"
          + " reset it. One that somebody has open is refused and not touched: then say what it has."
    },
    mixinStandardHelpOptions = true)
final class ExplainCommand implements Callable<Integer> {
  @Spec private CommandSpec spec;

  @Option(
      names = "--device",
      paramLabel = "NAME[,KEY=VALUE...]",
      converter = GuestDevice.Converter.class,
      description = {
        "a VFIO device of the guest, once for each: its name or path on this host (see probe), with",
        "  migration=on|off|auto        default auto",
        "  device-tracking=on|off|auto  may its own DMA log be used; default auto",
        "  has=WHAT[+WHAT...]           it is not on this host, and has these or nothing (has=):"
            + " stop_copy, p2p, dma_log, iommu_tracking"
      })
  private List<GuestDevice> devices = List.of();

  @Option(
      names = "--ram",
      converter = Units.Bytes.class,
      paramLabel = "SIZE",
      description = "the guest's memory; default: all that this host has")
  private long ram = HostMemory.total();

  @Option(
      names = "--viommu",
      arity = "0..1",
      fallbackValue = "48",
      paramLabel = "BITS",
      description =
          "the guest has an IOMMU with addresses of so many bits, 48 if not said: each device an"
              + " address space of its own, and a log that has to take all of it")
  private Integer vIommu;

  @Option(
      names = "--type1",
      description = "the VMM reaches the devices by their groups, instead of IOMMUFD")
  private boolean type1;

  @Option(
      names = "--unreadable",
      paramLabel = "WHY",
      description = "memory that the host cannot read, such as 'pc.ram: guest_memfd'")
  private List<String> unreadable = List.of();

  @Option(names = "--json", description = "one JSON object")
  private boolean json;

  @Override
  public Integer call() {
    List<ContainerFacts> containers;
    try {
      containers = containers();
    } catch (IllegalArgumentException e) {
      throw new ParameterException(spec.commandLine(), e.getMessage());
    }
    MachineFacts machine =
        new MachineFacts(ram, unreadable.stream().map(Text::line).toList(), containers);
    TrackingPlan plan = TrackingPlan.of(machine);
    Blockers blockers = Blockers.of(machine);
    if (json) {
      Map<String, Object> answer = new LinkedHashMap<>();
      answer.put("blocked", blockers.blocked());
      answer.put("trackingPlan", plan.containers());
      answer.put("devices", blockers.devices());
      answer.put("conditions", blockers.tree());
      System.out.println(Json.of(answer));
    } else {
      if (!plan.containers().isEmpty()) {
        System.out.print(Text.lines(plan.toString()));
      }
      System.out.print(Text.lines(blockers.toString()));
    }
    return blockers.blocked() ? Tidemark.FAILED : Tidemark.DONE;
  }

  private List<ContainerFacts> containers() {
    LogTrial trial = vIommu == null ? LogTrial.NONE : behindVIommu(vIommu);
    Map<String, ContainerFacts.Type1Limits> limits = new LinkedHashMap<>();
    Map<String, List<DeviceFacts>> found = new LinkedHashMap<>();
    for (GuestDevice device : devices) {
      GuestDevice.Asked asked = device.ask(type1, trial);
      String name = vIommu != null ? asked.container() + " of " + device.name() : asked.container();
      limits.put(name, asked.limits());
      found.computeIfAbsent(name, absent -> new ArrayList<>()).add(asked.facts());
    }
    return found.entrySet().stream()
        .map(
            e ->
                new ContainerFacts(
                    e.getKey(), vIommu != null, limits.get(e.getKey()), e.getValue()))
        .toList();
  }

  private static LogTrial behindVIommu(int addressBits) {
    DeviceRanges all = new DeviceRanges();
    all.addVIommu(addressBits);
    return device -> DeviceLogSource.refusal(device, all);
  }
}
