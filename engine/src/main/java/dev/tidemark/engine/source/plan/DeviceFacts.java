package dev.tidemark.engine.source.plan;

/**
 * What is known about a VFIO device before a migration.
 *
 * @param name what the operator calls it, such as {@code 0000:3b:00.2}
 * @param migration whether the operator wants it migrated
 * @param deviceTracking whether its own DMA log may be used, if it has one
 * @param stopCopy whether its driver saves its state ({@code VFIO_MIGRATION_STOP_COPY})
 * @param p2p whether its driver can keep it from others first ({@code VFIO_MIGRATION_P2P})
 * @param logsDma whether it logs its own DMA ({@code VFIO_DEVICE_FEATURE_DMA_LOGGING_START} can be
 *     set)
 * @param pageTableTracks whether the IOMMU page table that it is attached to was made with dirty
 *     tracking; false for a device that has none (mediated, or behind type1)
 * @param logRefusal why its own log cannot take the ranges that it would be started with, such as
 *     all that the guest may map behind a vIOMMU; null if it can, and where that was not asked
 */
public record DeviceFacts(
    String name,
    OnOffAuto migration,
    OnOffAuto deviceTracking,
    boolean stopCopy,
    boolean p2p,
    boolean logsDma,
    boolean pageTableTracks,
    String logRefusal) {

  /** Whether its own log is there and may be used. */
  boolean usesOwnLog() {
    return logsDma && deviceTracking != OnOffAuto.OFF;
  }

  /** Whether it takes part in a migration at all: QEMU's {@code vbasedev->migration}. */
  boolean takesPart() {
    return migration != OnOffAuto.OFF && stopCopy;
  }
}
