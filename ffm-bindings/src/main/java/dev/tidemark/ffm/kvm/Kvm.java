package dev.tidemark.ffm.kvm;

import static dev.tidemark.ffm.kvm.KvmLayouts.KVM_CPUID2;
import static dev.tidemark.ffm.kvm.KvmLayouts.KVM_CPUID_ENTRY2;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/**
 * {@code /dev/kvm}: what this host's KVM can do, and new VMs.
 *
 * <p>Threading: any thread. Cost: one system call a method.
 */
public final class Kvm implements AutoCloseable {
  private static final String PATH = "/dev/kvm";
  private static final long NENT = KvmLayouts.offset(KVM_CPUID2, "nent");
  private static final int MOST_CPUID_ENTRIES = 4096;

  private final Fd fd;

  private Kvm(Fd fd) {
    this.fd = fd;
  }

  /**
   * Opens {@code /dev/kvm}.
   *
   * @throws LinuxException if there is none, or no permission
   * @throws IllegalStateException if its API is not version {@value KvmConstants#KVM_API_VERSION}
   */
  public static Kvm open() {
    Fd fd;
    try {
      fd = Fd.open(PATH, Fd.O_RDWR);
    } catch (LinuxException e) {
      throw new LinuxException("open(" + PATH + ")", e.errno(), advice(e.errno()));
    }
    try {
      return checked(fd);
    } catch (RuntimeException e) {
      fd.close();
      throw e;
    }
  }

  /**
   * Uses a {@code /dev/kvm} that is already open; {@link #close()} leaves it open.
   *
   * @param number its descriptor
   * @throws LinuxException if it is not one of KVM's
   * @throws IllegalStateException if its API is not version {@value KvmConstants#KVM_API_VERSION}
   */
  public static Kvm borrow(int number) {
    return checked(Fd.borrow(number, PATH));
  }

  private static Kvm checked(Fd fd) {
    int version = Ioctl.call(fd, KvmRequests.KVM_GET_API_VERSION, 0);
    if (version != KvmConstants.KVM_API_VERSION) {
      throw new IllegalStateException(
          PATH + ": API version " + version + ", not " + KvmConstants.KVM_API_VERSION);
    }
    return new Kvm(fd);
  }

  /**
   * Why this process cannot use KVM.
   *
   * @return empty if it can; else one line with the error and what would help
   */
  public static Optional<String> missing() {
    try (Kvm kvm = open()) {
      kvm.createVm().close();
      return Optional.empty();
    } catch (LinuxException | IllegalStateException e) {
      return Optional.of(e.getMessage());
    }
  }

  private static String advice(int errno) {
    return switch (errno) {
      case Errno.ENOENT, Errno.ENODEV, Errno.ENXIO ->
          "load kvm_intel or kvm_amd, and switch virtualization on in the firmware, or nested"
              + " virtualization in the hypervisor";
      case Errno.EACCES, Errno.EPERM -> "this user must be allowed to write it (group kvm)";
      default -> null;
    };
  }

  /**
   * Asks for a capability ({@code KVM_CHECK_EXTENSION}).
   *
   * @param cap a {@code KVM_CAP_} number
   * @return 0 if there is none; else more than 0, whose meaning depends on the capability
   */
  public int checkExtension(int cap) {
    return Ioctl.call(fd, KvmRequests.KVM_CHECK_EXTENSION, cap);
  }

  /** Bytes of a vCPU's {@code struct kvm_run} with all that follows it, to be mapped. */
  public long vcpuMmapSize() {
    return Ioctl.call(fd, KvmRequests.KVM_GET_VCPU_MMAP_SIZE, 0);
  }

  /**
   * The CPUID leaves that this host can give a guest, fit for {@link KvmVcpu#setCpuid2}.
   *
   * @param arena holds the result
   * @return a {@code struct kvm_cpuid2} with its entries
   * @throws LinuxException if the kernel refuses
   */
  public MemorySegment getSupportedCpuid(Arena arena) {
    for (int entries = 128; ; entries *= 2) {
      MemorySegment cpuid = arena.allocate(cpuidBytes(entries), 8);
      cpuid.set(JAVA_INT, NENT, entries);
      int result = Ioctl.tryCall(fd, KvmRequests.KVM_GET_SUPPORTED_CPUID, cpuid);
      if (result >= 0) {
        return cpuid.asSlice(0, cpuidBytes(cpuid.get(JAVA_INT, NENT)));
      }
      if (result != -Errno.E2BIG || entries >= MOST_CPUID_ENTRIES) {
        throw Ioctl.failure(
            fd, KvmRequests.KVM_GET_SUPPORTED_CPUID, -result, "room for " + entries + " entries");
      }
    }
  }

  static long cpuidBytes(int entries) {
    return KVM_CPUID2.byteSize() + Integer.toUnsignedLong(entries) * KVM_CPUID_ENTRY2.byteSize();
  }

  /**
   * Creates a VM without memory and vCPUs ({@code KVM_CREATE_VM}, type 0).
   *
   * @throws LinuxException if the kernel refuses
   */
  public KvmVm createVm() {
    return new KvmVm(Fd.own(Ioctl.call(fd, KvmRequests.KVM_CREATE_VM, 0), "KVM VM"));
  }

  /** Closes the handle, and the descriptor unless it is borrowed; VMs live on. */
  @Override
  public void close() {
    fd.close();
  }
}
