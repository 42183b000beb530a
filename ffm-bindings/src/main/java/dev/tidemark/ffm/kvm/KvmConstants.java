package dev.tidemark.ffm.kvm;

/**
 * Numbers of {@code linux/kvm.h} (6.12), with the kernel's names. The two page offsets are of
 * {@code asm/kvm.h} for x86-64 and arm64.
 */
public final class KvmConstants {
  /** What {@code KVM_GET_API_VERSION} has returned since Linux 2.6.22. */
  public static final int KVM_API_VERSION = 12;

  public static final int KVM_CAP_USER_MEMORY = 3;
  public static final int KVM_CAP_NR_VCPUS = 9;
  public static final int KVM_CAP_NR_MEMSLOTS = 10;
  public static final int KVM_CAP_MULTI_ADDRESS_SPACE = 118;
  public static final int KVM_CAP_IMMEDIATE_EXIT = 136;
  public static final int KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 = 168;
  public static final int KVM_CAP_DIRTY_LOG_RING = 192;
  public static final int KVM_CAP_DIRTY_LOG_RING_ACQ_REL = 223;
  public static final int KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP = 225;
  public static final int KVM_CAP_USER_MEMORY2 = 231;
  public static final int KVM_CAP_GUEST_MEMFD = 234;

  public static final int KVM_MEM_LOG_DIRTY_PAGES = 1;
  public static final int KVM_MEM_READONLY = 1 << 1;
  public static final int KVM_MEM_GUEST_MEMFD = 1 << 2;

  public static final int KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1;
  public static final int KVM_DIRTY_LOG_INITIALLY_SET = 1 << 1;

  public static final int KVM_DIRTY_GFN_F_DIRTY = 1;
  public static final int KVM_DIRTY_GFN_F_RESET = 1 << 1;

  /** Where a vCPU's file has its dirty ring, in pages of the host. */
  public static final int KVM_DIRTY_LOG_PAGE_OFFSET = 64;

  public static final int KVM_EXIT_UNKNOWN = 0;
  public static final int KVM_EXIT_EXCEPTION = 1;
  public static final int KVM_EXIT_IO = 2;
  public static final int KVM_EXIT_HYPERCALL = 3;
  public static final int KVM_EXIT_DEBUG = 4;
  public static final int KVM_EXIT_HLT = 5;
  public static final int KVM_EXIT_MMIO = 6;
  public static final int KVM_EXIT_SHUTDOWN = 8;
  public static final int KVM_EXIT_FAIL_ENTRY = 9;
  public static final int KVM_EXIT_INTR = 10;
  public static final int KVM_EXIT_INTERNAL_ERROR = 17;
  public static final int KVM_EXIT_SYSTEM_EVENT = 24;
  public static final int KVM_EXIT_DIRTY_RING_FULL = 31;
  public static final int KVM_EXIT_MEMORY_FAULT = 39;

  public static final int KVM_EXIT_IO_IN = 0;
  public static final int KVM_EXIT_IO_OUT = 1;

  private KvmConstants() {}

  /**
   * The kernel's name of an exit reason.
   *
   * @return its name, or {@code exit reason N} for one not listed here
   */
  public static String exitName(int reason) {
    return switch (reason) {
      case KVM_EXIT_UNKNOWN -> "KVM_EXIT_UNKNOWN";
      case KVM_EXIT_EXCEPTION -> "KVM_EXIT_EXCEPTION";
      case KVM_EXIT_IO -> "KVM_EXIT_IO";
      case KVM_EXIT_HYPERCALL -> "KVM_EXIT_HYPERCALL";
      case KVM_EXIT_DEBUG -> "KVM_EXIT_DEBUG";
      case KVM_EXIT_HLT -> "KVM_EXIT_HLT";
      case KVM_EXIT_MMIO -> "KVM_EXIT_MMIO";
      case KVM_EXIT_SHUTDOWN -> "KVM_EXIT_SHUTDOWN";
      case KVM_EXIT_FAIL_ENTRY -> "KVM_EXIT_FAIL_ENTRY";
      case KVM_EXIT_INTR -> "KVM_EXIT_INTR";
      case KVM_EXIT_INTERNAL_ERROR -> "KVM_EXIT_INTERNAL_ERROR";
      case KVM_EXIT_SYSTEM_EVENT -> "KVM_EXIT_SYSTEM_EVENT";
      case KVM_EXIT_DIRTY_RING_FULL -> "KVM_EXIT_DIRTY_RING_FULL";
      case KVM_EXIT_MEMORY_FAULT -> "KVM_EXIT_MEMORY_FAULT";
      default -> "exit reason " + reason;
    };
  }
}
