package dev.tidemark.engine.source.plan;

import java.util.List;

/**
 * What is known about a guest before a migration.
 *
 * @param ramBytes the guest's memory
 * @param unreadable what of its memory the host cannot read, with the reason, such as {@code
 *     "pc.ram: guest_memfd"}; empty if it can read all
 * @param containers where its VFIO devices are; empty if there are none
 */
public record MachineFacts(
    long ramBytes, List<String> unreadable, List<ContainerFacts> containers) {
  /** Takes copies of the lists. */
  public MachineFacts {
    unreadable = List.copyOf(unreadable);
    containers = List.copyOf(containers);
  }

  /** The devices of all containers that take part in a migration. */
  List<DeviceFacts> takingPart() {
    return containers.stream()
        .flatMap(container -> container.devices().stream())
        .filter(DeviceFacts::takesPart)
        .toList();
  }
}
