package dev.tidemark.engine.source.plan;

import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;

/**
 * Who tracks what the devices of each container write. All devices of a container are tracked the
 * same way, as all of them write the same memory: the first way that covers every one of them.
 *
 * @param containers in the order of the facts
 */
public record TrackingPlan(List<Container> containers) {
  /** Who tracks. */
  public enum Tracker {
    /** Every device logs its own DMA. */
    DEVICE("each device logs its own DMA"),

    /** Every IOMMU page table tracks. */
    IOMMU("the IOMMU's page tables track"),

    /** The type1 container is asked, which may only ever say "everything mapped". */
    TYPE1("the type1 container is asked"),

    /** Nobody: every page that devices may write counts as dirty, always. */
    NONE("nothing tracks: every writable mapped page counts as dirty");

    private final String text;

    Tracker(String text) {
      this.text = text;
    }

    @Override
    public String toString() {
      return text;
    }
  }

  /**
   * What is planned for one container.
   *
   * @param facts the container
   * @param tracker who tracks its devices
   * @param reasons why no better way is taken, one each; empty if the best is
   */
  public record Container(ContainerFacts facts, Tracker tracker, List<String> reasons) {
    @Override
    public String toString() {
      return facts.name()
          + ": "
          + tracker
          + reasons.stream().map(reason -> "\n  because " + reason).collect(Collectors.joining());
    }
  }

  /** Plans for all containers of a machine. */
  public static TrackingPlan of(MachineFacts machine) {
    return new TrackingPlan(machine.containers().stream().map(TrackingPlan::plan).toList());
  }

  private static Container plan(ContainerFacts facts) {
    List<String> reasons = new ArrayList<>();
    for (DeviceFacts device : facts.devices()) {
      if (!device.logsDma()) {
        reasons.add(device.name() + " does not log its DMA");
      } else if (!device.usesOwnLog()) {
        reasons.add(device.name() + " is told not to log its DMA (device tracking off)");
      }
    }
    if (reasons.isEmpty()) {
      return new Container(facts, Tracker.DEVICE, List.of());
    }
    if (facts.type1() != null) {
      return new Container(facts, Tracker.TYPE1, List.copyOf(reasons));
    }
    boolean all = true;
    for (DeviceFacts device : facts.devices()) {
      if (!device.pageTableTracks()) {
        reasons.add("the page table of " + device.name() + " does not track");
        all = false;
      }
    }
    return new Container(facts, all ? Tracker.IOMMU : Tracker.NONE, List.copyOf(reasons));
  }

  /** One line per container, and one per reason. */
  @Override
  public String toString() {
    return containers.stream().map(Container::toString).collect(Collectors.joining("\n"));
  }
}
