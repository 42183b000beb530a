package dev.tidemark.ffm.kvm;

import static java.lang.foreign.MemoryLayout.paddingLayout;
import static java.lang.foreign.MemoryLayout.sequenceLayout;
import static java.lang.foreign.MemoryLayout.structLayout;
import static java.lang.foreign.MemoryLayout.unionLayout;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import java.lang.foreign.GroupLayout;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemoryLayout.PathElement;
import java.lang.foreign.StructLayout;

/**
 * The structures of {@code linux/kvm.h} and, for x86-64, {@code asm/kvm.h} (6.12), with the
 * kernel's names. A layout's own name is the structure's; a union without a name in C has none
 * here. The kernel's {@code pad} and {@code padding} members are padding.
 */
public final class KvmLayouts {
  public static final StructLayout KVM_USERSPACE_MEMORY_REGION =
      structLayout(
              JAVA_INT.withName("slot"),
              JAVA_INT.withName("flags"),
              JAVA_LONG.withName("guest_phys_addr"),
              JAVA_LONG.withName("memory_size"),
              JAVA_LONG.withName("userspace_addr"))
          .withName("kvm_userspace_memory_region");

  public static final StructLayout KVM_DIRTY_LOG =
      structLayout(JAVA_INT.withName("slot"), paddingLayout(4), JAVA_LONG.withName("dirty_bitmap"))
          .withName("kvm_dirty_log");

  public static final StructLayout KVM_CLEAR_DIRTY_LOG =
      structLayout(
              JAVA_INT.withName("slot"),
              JAVA_INT.withName("num_pages"),
              JAVA_LONG.withName("first_page"),
              JAVA_LONG.withName("dirty_bitmap"))
          .withName("kvm_clear_dirty_log");

  public static final StructLayout KVM_ENABLE_CAP =
      structLayout(
              JAVA_INT.withName("cap"),
              JAVA_INT.withName("flags"),
              sequenceLayout(4, JAVA_LONG).withName("args"),
              paddingLayout(64))
          .withName("kvm_enable_cap");

  /** An entry of a dirty ring. */
  public static final StructLayout KVM_DIRTY_GFN =
      structLayout(
              JAVA_INT.withName("flags"), JAVA_INT.withName("slot"), JAVA_LONG.withName("offset"))
          .withName("kvm_dirty_gfn");

  /** Followed by {@code len} bytes: the signals that are blocked inside {@code KVM_RUN}. */
  public static final StructLayout KVM_SIGNAL_MASK =
      structLayout(JAVA_INT.withName("len")).withName("kvm_signal_mask");

  /** Followed by {@code nent} times {@link #KVM_CPUID_ENTRY2}. */
  public static final StructLayout KVM_CPUID2 =
      structLayout(JAVA_INT.withName("nent"), paddingLayout(4)).withName("kvm_cpuid2");

  public static final StructLayout KVM_CPUID_ENTRY2 =
      structLayout(
              JAVA_INT.withName("function"),
              JAVA_INT.withName("index"),
              JAVA_INT.withName("flags"),
              JAVA_INT.withName("eax"),
              JAVA_INT.withName("ebx"),
              JAVA_INT.withName("ecx"),
              JAVA_INT.withName("edx"),
              paddingLayout(12))
          .withName("kvm_cpuid_entry2");

  public static final StructLayout KVM_REGS =
      structLayout(
              JAVA_LONG.withName("rax"),
              JAVA_LONG.withName("rbx"),
              JAVA_LONG.withName("rcx"),
              JAVA_LONG.withName("rdx"),
              JAVA_LONG.withName("rsi"),
              JAVA_LONG.withName("rdi"),
              JAVA_LONG.withName("rsp"),
              JAVA_LONG.withName("rbp"),
              JAVA_LONG.withName("r8"),
              JAVA_LONG.withName("r9"),
              JAVA_LONG.withName("r10"),
              JAVA_LONG.withName("r11"),
              JAVA_LONG.withName("r12"),
              JAVA_LONG.withName("r13"),
              JAVA_LONG.withName("r14"),
              JAVA_LONG.withName("r15"),
              JAVA_LONG.withName("rip"),
              JAVA_LONG.withName("rflags"))
          .withName("kvm_regs");

  public static final StructLayout KVM_SEGMENT =
      structLayout(
              JAVA_LONG.withName("base"),
              JAVA_INT.withName("limit"),
              JAVA_SHORT.withName("selector"),
              JAVA_BYTE.withName("type"),
              JAVA_BYTE.withName("present"),
              JAVA_BYTE.withName("dpl"),
              JAVA_BYTE.withName("db"),
              JAVA_BYTE.withName("s"),
              JAVA_BYTE.withName("l"),
              JAVA_BYTE.withName("g"),
              JAVA_BYTE.withName("avl"),
              JAVA_BYTE.withName("unusable"),
              paddingLayout(1))
          .withName("kvm_segment");

  public static final StructLayout KVM_DTABLE =
      structLayout(JAVA_LONG.withName("base"), JAVA_SHORT.withName("limit"), paddingLayout(6))
          .withName("kvm_dtable");

  public static final StructLayout KVM_SREGS =
      structLayout(
              KVM_SEGMENT.withName("cs"),
              KVM_SEGMENT.withName("ds"),
              KVM_SEGMENT.withName("es"),
              KVM_SEGMENT.withName("fs"),
              KVM_SEGMENT.withName("gs"),
              KVM_SEGMENT.withName("ss"),
              KVM_SEGMENT.withName("tr"),
              KVM_SEGMENT.withName("ldt"),
              KVM_DTABLE.withName("gdt"),
              KVM_DTABLE.withName("idt"),
              JAVA_LONG.withName("cr0"),
              JAVA_LONG.withName("cr2"),
              JAVA_LONG.withName("cr3"),
              JAVA_LONG.withName("cr4"),
              JAVA_LONG.withName("cr8"),
              JAVA_LONG.withName("efer"),
              JAVA_LONG.withName("apic_base"),
              sequenceLayout(4, JAVA_LONG).withName("interrupt_bitmap"))
          .withName("kvm_sregs");

  /** The members that this module reads or writes; the others are padding. */
  public static final StructLayout KVM_RUN =
      structLayout(
              JAVA_BYTE.withName("request_interrupt_window"),
              JAVA_BYTE.withName("immediate_exit"),
              paddingLayout(6),
              JAVA_INT.withName("exit_reason"),
              JAVA_BYTE.withName("ready_for_interrupt_injection"),
              JAVA_BYTE.withName("if_flag"),
              JAVA_SHORT.withName("flags"),
              JAVA_LONG.withName("cr8"),
              JAVA_LONG.withName("apic_base"),
              unionLayout(
                  structLayout(JAVA_LONG.withName("hardware_exit_reason")).withName("hw"),
                  structLayout(
                          JAVA_LONG.withName("hardware_entry_failure_reason"),
                          JAVA_INT.withName("cpu"),
                          paddingLayout(4))
                      .withName("fail_entry"),
                  structLayout(
                          JAVA_BYTE.withName("direction"),
                          JAVA_BYTE.withName("size"),
                          JAVA_SHORT.withName("port"),
                          JAVA_INT.withName("count"),
                          JAVA_LONG.withName("data_offset"))
                      .withName("io"),
                  structLayout(
                          JAVA_LONG.withName("phys_addr"),
                          sequenceLayout(8, JAVA_BYTE).withName("data"),
                          JAVA_INT.withName("len"),
                          JAVA_BYTE.withName("is_write"),
                          paddingLayout(3))
                      .withName("mmio"),
                  structLayout(
                          JAVA_INT.withName("suberror"),
                          JAVA_INT.withName("ndata"),
                          sequenceLayout(16, JAVA_LONG).withName("data"))
                      .withName("internal"),
                  structLayout(
                          JAVA_LONG.withName("flags"),
                          JAVA_LONG.withName("gpa"),
                          JAVA_LONG.withName("size"))
                      .withName("memory_fault"),
                  paddingLayout(256)),
              paddingLayout(2064))
          .withName("kvm_run");

  private KvmLayouts() {}

  /**
   * Where a member lies; as in C, a member of a union without a name counts as the outer
   * structure's.
   *
   * @param layout one of this class
   * @param path the names of members, from the outside in
   * @return bytes from the start of the layout
   * @throws IllegalArgumentException if there is no such member
   */
  public static long offset(GroupLayout layout, String... path) {
    long offset = 0;
    GroupLayout group = layout;
    for (int i = 0; i < path.length; i++) {
      long step = find(group, path[i]);
      if (step < 0) {
        throw new IllegalArgumentException(layout + " has no " + String.join(".", path));
      }
      offset += step;
      if (i + 1 < path.length) {
        group = (GroupLayout) member(group, path[i]);
      }
    }
    return offset;
  }

  private static long find(GroupLayout group, String name) {
    var members = group.memberLayouts();
    for (int i = 0; i < members.size(); i++) {
      MemoryLayout member = members.get(i);
      long start = group.byteOffset(PathElement.groupElement(i));
      if (member.name().isPresent()) {
        if (member.name().get().equals(name)) {
          return start;
        }
      } else if (member instanceof GroupLayout inner) {
        long within = find(inner, name);
        if (within >= 0) {
          return start + within;
        }
      }
    }
    return -1;
  }

  private static MemoryLayout member(GroupLayout group, String name) {
    for (MemoryLayout member : group.memberLayouts()) {
      if (member.name().isPresent()) {
        if (member.name().get().equals(name)) {
          return member;
        }
      } else if (member instanceof GroupLayout inner) {
        MemoryLayout found = member(inner, name);
        if (found != null) {
          return found;
        }
      }
    }
    return null;
  }
}
