package dev.tidemark.ffm.userfaultfd;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Ioctl;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.StructLayout;
import java.util.ArrayList;
import java.util.List;

/** {@code linux/userfaultfd.h}: numbers and structures, with the kernel's names. */
public final class UserfaultfdUapi {
  /** The only API number there is. */
  public static final long UFFD_API = 0xAA;

  /** Flag of {@code userfaultfd(2)}: faults of user space only, which needs no privilege. */
  public static final int UFFD_USER_MODE_ONLY = 1;

  public static final long UFFD_FEATURE_PAGEFAULT_FLAG_WP = 1;
  public static final long UFFD_FEATURE_EVENT_FORK = 1 << 1;
  public static final long UFFD_FEATURE_EVENT_REMAP = 1 << 2;
  public static final long UFFD_FEATURE_EVENT_REMOVE = 1 << 3;
  public static final long UFFD_FEATURE_MISSING_HUGETLBFS = 1 << 4;
  public static final long UFFD_FEATURE_MISSING_SHMEM = 1 << 5;
  public static final long UFFD_FEATURE_EVENT_UNMAP = 1 << 6;
  public static final long UFFD_FEATURE_SIGBUS = 1 << 7;
  public static final long UFFD_FEATURE_THREAD_ID = 1 << 8;
  public static final long UFFD_FEATURE_MINOR_HUGETLBFS = 1 << 9;
  public static final long UFFD_FEATURE_MINOR_SHMEM = 1 << 10;
  public static final long UFFD_FEATURE_EXACT_ADDRESS = 1 << 11;
  public static final long UFFD_FEATURE_WP_HUGETLBFS_SHMEM = 1 << 12;
  public static final long UFFD_FEATURE_WP_UNPOPULATED = 1 << 13;
  public static final long UFFD_FEATURE_POISON = 1 << 14;

  /** Write faults are resolved by the kernel; memory of any kind can be registered. */
  public static final long UFFD_FEATURE_WP_ASYNC = 1 << 15;

  public static final long UFFD_FEATURE_MOVE = 1 << 16;

  public static final long UFFDIO_REGISTER_MODE_MISSING = 1;
  public static final long UFFDIO_REGISTER_MODE_WP = 1 << 1;
  public static final long UFFDIO_REGISTER_MODE_MINOR = 1 << 2;

  public static final long UFFDIO_WRITEPROTECT_MODE_WP = 1;
  public static final long UFFDIO_WRITEPROTECT_MODE_DONTWAKE = 1 << 1;

  /** {@code struct uffdio_api}. */
  public static final StructLayout UFFDIO_API_LAYOUT =
      MemoryLayout.structLayout(
              JAVA_LONG.withName("api"),
              JAVA_LONG.withName("features"),
              JAVA_LONG.withName("ioctls"))
          .withName("uffdio_api");

  /** {@code struct uffdio_range}. */
  public static final StructLayout UFFDIO_RANGE_LAYOUT =
      MemoryLayout.structLayout(JAVA_LONG.withName("start"), JAVA_LONG.withName("len"))
          .withName("uffdio_range");

  /** {@code struct uffdio_register}. */
  public static final StructLayout UFFDIO_REGISTER_LAYOUT =
      MemoryLayout.structLayout(
              UFFDIO_RANGE_LAYOUT.withName("range"),
              JAVA_LONG.withName("mode"),
              JAVA_LONG.withName("ioctls"))
          .withName("uffdio_register");

  /** {@code struct uffdio_writeprotect}. */
  public static final StructLayout UFFDIO_WRITEPROTECT_LAYOUT =
      MemoryLayout.structLayout(UFFDIO_RANGE_LAYOUT.withName("range"), JAVA_LONG.withName("mode"))
          .withName("uffdio_writeprotect");

  private static final int UFFDIO = 0xAA;

  /** On {@code /dev/userfaultfd}; the argument is the flags of {@code userfaultfd(2)}. */
  public static final Ioctl.Request USERFAULTFD_IOC_NEW =
      Ioctl._IO("USERFAULTFD_IOC_NEW", UFFDIO, 0x00);

  public static final Ioctl.Request UFFDIO_API =
      Ioctl._IOWR("UFFDIO_API", UFFDIO, 0x3F, UFFDIO_API_LAYOUT);

  public static final Ioctl.Request UFFDIO_REGISTER =
      Ioctl._IOWR("UFFDIO_REGISTER", UFFDIO, 0x00, UFFDIO_REGISTER_LAYOUT);

  public static final Ioctl.Request UFFDIO_UNREGISTER =
      Ioctl._IOR("UFFDIO_UNREGISTER", UFFDIO, 0x01, UFFDIO_RANGE_LAYOUT);

  public static final Ioctl.Request UFFDIO_WRITEPROTECT =
      Ioctl._IOWR("UFFDIO_WRITEPROTECT", UFFDIO, 0x06, UFFDIO_WRITEPROTECT_LAYOUT);

  private static final List<String> FEATURES =
      List.of(
          "PAGEFAULT_FLAG_WP",
          "EVENT_FORK",
          "EVENT_REMAP",
          "EVENT_REMOVE",
          "MISSING_HUGETLBFS",
          "MISSING_SHMEM",
          "EVENT_UNMAP",
          "SIGBUS",
          "THREAD_ID",
          "MINOR_HUGETLBFS",
          "MINOR_SHMEM",
          "EXACT_ADDRESS",
          "WP_HUGETLBFS_SHMEM",
          "WP_UNPOPULATED",
          "POISON",
          "WP_ASYNC",
          "MOVE");

  private UserfaultfdUapi() {}

  /**
   * The kernel's names of features, without their prefix.
   *
   * @param features any of {@code UFFD_FEATURE_}
   * @return in the order of the bits; a bit without a name as {@code bit N}
   */
  public static List<String> featureNames(long features) {
    List<String> names = new ArrayList<>();
    for (long left = features; left != 0; left &= left - 1) {
      int bit = Long.numberOfTrailingZeros(left);
      names.add(bit < FEATURES.size() ? FEATURES.get(bit) : "bit " + bit);
    }
    return names;
  }
}
