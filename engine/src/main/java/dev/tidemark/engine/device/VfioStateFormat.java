package dev.tidemark.engine.device;

/**
 * The section of a VFIO device in QEMU's stream (QEMU {@code hw/vfio/migration.c}): each piece is a
 * list of 64-bit tags with their data, up to {@link #END_OF_STATE}.
 */
final class VfioStateFormat {
  static final int VERSION = 1;

  static final long END_OF_STATE = 0xffff_ffff_ef10_0001L;

  /** The PCI device's configuration space and the like: QEMU's own, in a full section. */
  static final long CONFIG_STATE = 0xffff_ffff_ef10_0002L;

  static final long SETUP_STATE = 0xffff_ffff_ef10_0003L;

  /** 64 bits of length in bytes and as much data follow. */
  static final long DATA_STATE = 0xffff_ffff_ef10_0004L;

  static final long INIT_DATA_SENT = 0xffff_ffff_ef10_0005L;

  /** The most data at a time, in bytes. */
  static final int CHUNK = 1 << 20;

  private VfioStateFormat() {}

  /**
   * @param path the device's, such as {@code 0000:00:02.0}
   */
  static String sectionName(String path) {
    return path + "/vfio";
  }
}
