package dev.tidemark.engine.source.plan;

import dev.tidemark.engine.source.plan.Condition.Verdict;
import dev.tidemark.engine.source.plan.TrackingPlan.Tracker;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * What keeps a guest from being migrated now: every condition with its value and verdict.
 *
 * <p>For a VFIO device these are the conditions of QEMU's {@code vfio_migration_realize}
 * (hw/vfio/migration.c), in its order: turned off; the driver's migration support; dirty tracking;
 * several devices; a vIOMMU. Tidemark differs in two of them. Where page tables that track and
 * others share a container, it counts every writable page there as dirty and warns; QEMU leaves out
 * what the others wrote. Where devices log their own DMA behind a vIOMMU, it blocks only if a log
 * cannot take all that the guest may map; QEMU always does. Its own conditions are memory that the
 * host cannot read, and a device log that is insisted on and not there.
 *
 * @param tree the machine's conditions, one below it for its memory and one for each device
 * @param devices what follows for each device, in the order of the facts
 */
public record Blockers(Condition tree, List<Device> devices) {
  private static final String RANGES = "its own log takes all that may be mapped";

  /** What a migration of a device comes to. */
  public enum Outcome {
    /** It can be migrated. */
    MIGRATES,

    /** It can, at a price. */
    MIGRATES_WITH_WARNING,

    /** It blocks the migration of the guest. */
    BLOCKED,

    /** Its migration was insisted on and is not possible: the device should not be taken at all. */
    REFUSED
  }

  /**
   * What follows for one device.
   *
   * @param facts the device
   * @param outcome what its migration comes to
   * @param tree its conditions
   */
  public record Device(DeviceFacts facts, Outcome outcome, Condition tree) {}

  /** Asks all conditions of a machine. */
  public static Blockers of(MachineFacts machine) {
    List<Condition> conditions = new ArrayList<>();
    conditions.add(
        Condition.of(
            "the host can read the guest's memory",
            machine.unreadable().isEmpty() ? "all of it" : String.join(", ", machine.unreadable()),
            machine.unreadable().isEmpty() ? Verdict.PASSES : Verdict.BLOCKS));
    List<Device> devices = new ArrayList<>();
    for (TrackingPlan.Container plan : TrackingPlan.of(machine).containers()) {
      for (DeviceFacts facts : plan.facts().devices()) {
        Condition tree = device(machine, plan, facts);
        devices.add(new Device(facts, outcome(facts, tree), tree));
        conditions.add(tree);
      }
    }
    Condition tree = Condition.of("migration", count(devices.size(), "VFIO device"), conditions);
    return new Blockers(tree, List.copyOf(devices));
  }

  private static Outcome outcome(DeviceFacts facts, Condition tree) {
    if (tree.blocks()) {
      return facts.migration() == OnOffAuto.ON ? Outcome.REFUSED : Outcome.BLOCKED;
    }
    return tree.verdict() == Verdict.WARNS ? Outcome.MIGRATES_WITH_WARNING : Outcome.MIGRATES;
  }

  private static Condition device(
      MachineFacts machine, TrackingPlan.Container plan, DeviceFacts facts) {
    List<Condition> conditions = new ArrayList<>();
    conditions.add(
        Condition.of(
            "migration is wanted",
            facts.migration().toString(),
            facts.migration() == OnOffAuto.OFF ? Verdict.BLOCKS : Verdict.PASSES));
    boolean open = !conditions.getLast().blocks();
    conditions.add(
        open
            ? Condition.of(
                "its driver saves and loads its state (VFIO_MIGRATION_STOP_COPY)",
                yes(facts.stopCopy()),
                facts.stopCopy() ? Verdict.PASSES : Verdict.BLOCKS)
            : notAsked("its driver saves and loads its state (VFIO_MIGRATION_STOP_COPY)"));
    open &= !conditions.getLast().blocks();
    conditions.add(open ? tracking(machine, plan, facts) : notAsked("its DMA is tracked"));
    open &= !conditions.getLast().blocks();
    conditions.add(open ? several(machine) : notAsked("it is the only one, or all have P2P"));
    open &= !conditions.getLast().blocks();
    conditions.add(open ? ranges(plan, facts) : notAsked(RANGES));
    return Condition.of(
        "device " + facts.name(), "in container " + plan.facts().name(), conditions);
  }

  private static Condition tracking(
      MachineFacts machine, TrackingPlan.Container plan, DeviceFacts facts) {
    List<Condition> children = new ArrayList<>();
    boolean insists = facts.deviceTracking() == OnOffAuto.ON && !facts.logsDma();
    String log = facts.logsDma() ? "yes" : "no";
    children.add(
        Condition.of(
            "it logs its own DMA",
            facts.deviceTracking() == OnOffAuto.AUTO
                ? log
                : log + ", device tracking " + facts.deviceTracking(),
            insists ? Verdict.BLOCKS : facts.usesOwnLog() ? Verdict.PASSES : Verdict.NONE));
    children.add(
        Condition.of(
            "its page table tracks",
            yes(facts.pageTableTracks()),
            facts.pageTableTracks() ? Verdict.PASSES : Verdict.NONE));
    boolean tracked = facts.usesOwnLog() || facts.pageTableTracks();
    if (!tracked && facts.migration() == OnOffAuto.AUTO) {
      children.add(
          Condition.of(
              "one of the two, or migration on: then every page it may write counts as dirty",
              "neither",
              Verdict.BLOCKS));
      return Condition.of("its DMA is tracked", "no", children);
    }
    Tracker tracker = plan.tracker();
    boolean all = tracker == Tracker.NONE || !tracked;
    String price =
        String.join("; ", plan.reasons())
            + (tracker == Tracker.TYPE1
                ? ": the container may report everything mapped, always"
                : ": every writable mapped page counts as dirty, always");
    children.add(
        Condition.of(
            "all of its container are tracked",
            all ? price : tracker.toString(),
            all ? Verdict.WARNS : Verdict.PASSES));
    ContainerFacts.Type1Limits limits = plan.facts().type1();
    if (!tracked && limits != null) {
      boolean fits = machine.ramBytes() <= limits.bytes();
      children.add(
          Condition.of(
              "the memory fits the container's largest bitmap",
              String.format(
                  Locale.ROOT,
                  "%d bytes of RAM, %d bytes of bitmap, pages of %d: up to %d bytes",
                  machine.ramBytes(),
                  limits.maxDirtyBitmapSize(),
                  limits.pageSize(),
                  limits.bytes()),
              fits ? Verdict.PASSES : Verdict.BLOCKS));
    }
    return Condition.of("its DMA is tracked", tracker.toString(), children);
  }

  private static Condition several(MachineFacts machine) {
    List<DeviceFacts> others = machine.takingPart();
    List<String> without =
        others.stream().filter(device -> !device.p2p()).map(DeviceFacts::name).toList();
    boolean fine = others.size() <= 1 || without.isEmpty();
    return Condition.of(
        "it is the only one, or all have P2P",
        count(others.size(), "device")
            + (without.isEmpty()
                ? ", all with P2P"
                : ", without P2P: " + String.join(", ", without)),
        fine ? Verdict.PASSES : Verdict.BLOCKS);
  }

  private static Condition ranges(TrackingPlan.Container plan, DeviceFacts facts) {
    if (plan.tracker() != Tracker.DEVICE) {
      return Condition.of(RANGES, "its own log is not used", Verdict.PASSES);
    }
    String refusal = facts.logRefusal();
    return Condition.of(
        RANGES,
        String.format(
            Locale.ROOT,
            "vIOMMU %s, %s",
            yes(plan.facts().vIommu()),
            refusal == null ? "nothing refused" : "refused: " + refusal),
        refusal == null ? Verdict.PASSES : Verdict.BLOCKS);
  }

  private static Condition notAsked(String text) {
    return Condition.of(text, "not asked", Verdict.NONE);
  }

  private static String count(int number, String what) {
    return number + " " + what + (number == 1 ? "" : "s");
  }

  private static String yes(boolean value) {
    return value ? "yes" : "no";
  }

  /** Whether the guest cannot be migrated. */
  public boolean blocked() {
    return tree.blocks();
  }

  /** The whole tree, a condition per line. */
  @Override
  public String toString() {
    return tree.toString();
  }
}
