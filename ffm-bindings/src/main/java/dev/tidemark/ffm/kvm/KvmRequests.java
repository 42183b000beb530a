package dev.tidemark.ffm.kvm;

import static dev.tidemark.ffm.Ioctl._IO;
import static dev.tidemark.ffm.Ioctl._IOR;
import static dev.tidemark.ffm.Ioctl._IOW;
import static dev.tidemark.ffm.Ioctl._IOWR;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.Ioctl.Request;

/** The requests of {@code linux/kvm.h} (6.12) that this module makes, with the kernel's names. */
public final class KvmRequests {
  private static final int KVMIO = 0xAE;

  public static final Request KVM_GET_API_VERSION = _IO("KVM_GET_API_VERSION", KVMIO, 0x00);
  public static final Request KVM_CREATE_VM = _IO("KVM_CREATE_VM", KVMIO, 0x01);
  public static final Request KVM_CHECK_EXTENSION = _IO("KVM_CHECK_EXTENSION", KVMIO, 0x03);
  public static final Request KVM_GET_VCPU_MMAP_SIZE = _IO("KVM_GET_VCPU_MMAP_SIZE", KVMIO, 0x04);
  public static final Request KVM_GET_SUPPORTED_CPUID =
      _IOWR("KVM_GET_SUPPORTED_CPUID", KVMIO, 0x05, KvmLayouts.KVM_CPUID2);

  public static final Request KVM_CREATE_VCPU = _IO("KVM_CREATE_VCPU", KVMIO, 0x41);
  public static final Request KVM_GET_DIRTY_LOG =
      _IOW("KVM_GET_DIRTY_LOG", KVMIO, 0x42, KvmLayouts.KVM_DIRTY_LOG);
  public static final Request KVM_SET_USER_MEMORY_REGION =
      _IOW("KVM_SET_USER_MEMORY_REGION", KVMIO, 0x46, KvmLayouts.KVM_USERSPACE_MEMORY_REGION);
  public static final Request KVM_SET_TSS_ADDR = _IO("KVM_SET_TSS_ADDR", KVMIO, 0x47);
  public static final Request KVM_SET_IDENTITY_MAP_ADDR =
      _IOW("KVM_SET_IDENTITY_MAP_ADDR", KVMIO, 0x48, JAVA_LONG);
  public static final Request KVM_ENABLE_CAP =
      _IOW("KVM_ENABLE_CAP", KVMIO, 0xa3, KvmLayouts.KVM_ENABLE_CAP);
  public static final Request KVM_CLEAR_DIRTY_LOG =
      _IOWR("KVM_CLEAR_DIRTY_LOG", KVMIO, 0xc0, KvmLayouts.KVM_CLEAR_DIRTY_LOG);
  public static final Request KVM_RESET_DIRTY_RINGS = _IO("KVM_RESET_DIRTY_RINGS", KVMIO, 0xc7);

  public static final Request KVM_RUN = _IO("KVM_RUN", KVMIO, 0x80);
  public static final Request KVM_GET_REGS = _IOR("KVM_GET_REGS", KVMIO, 0x81, KvmLayouts.KVM_REGS);
  public static final Request KVM_SET_REGS = _IOW("KVM_SET_REGS", KVMIO, 0x82, KvmLayouts.KVM_REGS);
  public static final Request KVM_GET_SREGS =
      _IOR("KVM_GET_SREGS", KVMIO, 0x83, KvmLayouts.KVM_SREGS);
  public static final Request KVM_SET_SREGS =
      _IOW("KVM_SET_SREGS", KVMIO, 0x84, KvmLayouts.KVM_SREGS);
  public static final Request KVM_SET_SIGNAL_MASK =
      _IOW("KVM_SET_SIGNAL_MASK", KVMIO, 0x8b, KvmLayouts.KVM_SIGNAL_MASK);
  public static final Request KVM_SET_CPUID2 =
      _IOW("KVM_SET_CPUID2", KVMIO, 0x90, KvmLayouts.KVM_CPUID2);

  private KvmRequests() {}
}
