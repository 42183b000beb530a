package dev.tidemark.ffm.kvm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.tidemark.ffm.Ioctl.Request;
import java.lang.foreign.GroupLayout;
import java.lang.reflect.Modifier;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;

/** Numbers that the kernel's headers give on x86-64. */
class KvmLayoutsTest {
  @Test
  void requestNumbersAreTheKernels() throws IllegalAccessException {
    Map<String, String> expected =
        new TreeMap<>(
            Map.ofEntries(
                Map.entry("KVM_GET_API_VERSION", "0xae00"),
                Map.entry("KVM_CREATE_VM", "0xae01"),
                Map.entry("KVM_CHECK_EXTENSION", "0xae03"),
                Map.entry("KVM_GET_VCPU_MMAP_SIZE", "0xae04"),
                Map.entry("KVM_GET_SUPPORTED_CPUID", "0xc008ae05"),
                Map.entry("KVM_CREATE_VCPU", "0xae41"),
                Map.entry("KVM_GET_DIRTY_LOG", "0x4010ae42"),
                Map.entry("KVM_SET_USER_MEMORY_REGION", "0x4020ae46"),
                Map.entry("KVM_SET_TSS_ADDR", "0xae47"),
                Map.entry("KVM_SET_IDENTITY_MAP_ADDR", "0x4008ae48"),
                Map.entry("KVM_ENABLE_CAP", "0x4068aea3"),
                Map.entry("KVM_CLEAR_DIRTY_LOG", "0xc018aec0"),
                Map.entry("KVM_RESET_DIRTY_RINGS", "0xaec7"),
                Map.entry("KVM_RUN", "0xae80"),
                Map.entry("KVM_GET_REGS", "0x8090ae81"),
                Map.entry("KVM_SET_REGS", "0x4090ae82"),
                Map.entry("KVM_GET_SREGS", "0x8138ae83"),
                Map.entry("KVM_SET_SREGS", "0x4138ae84"),
                Map.entry("KVM_SET_SIGNAL_MASK", "0x4004ae8b"),
                Map.entry("KVM_SET_CPUID2", "0x4008ae90")));
    Map<String, String> actual = new TreeMap<>();
    for (var field : KvmRequests.class.getFields()) {
      if (Modifier.isStatic(field.getModifiers()) && field.get(null) instanceof Request request) {
        assertEquals(field.getName(), request.name());
        actual.put(request.name(), "0x" + Integer.toHexString(request.code()));
      }
    }
    assertEquals(expected, actual);
  }

  @Test
  void structureSizesAreTheKernels() throws IllegalAccessException {
    Map<String, Long> expected =
        new TreeMap<>(
            Map.ofEntries(
                Map.entry("kvm_userspace_memory_region", 32L),
                Map.entry("kvm_dirty_log", 16L),
                Map.entry("kvm_clear_dirty_log", 24L),
                Map.entry("kvm_enable_cap", 104L),
                Map.entry("kvm_dirty_gfn", 16L),
                Map.entry("kvm_signal_mask", 4L),
                Map.entry("kvm_cpuid2", 8L),
                Map.entry("kvm_cpuid_entry2", 40L),
                Map.entry("kvm_regs", 144L),
                Map.entry("kvm_segment", 24L),
                Map.entry("kvm_dtable", 16L),
                Map.entry("kvm_sregs", 312L),
                Map.entry("kvm_run", 2352L)));
    Map<String, Long> actual = new TreeMap<>();
    for (var field : KvmLayouts.class.getFields()) {
      GroupLayout layout = (GroupLayout) field.get(null);
      assertEquals(field.getName().toLowerCase(), layout.name().orElseThrow());
      actual.put(layout.name().orElseThrow(), layout.byteSize());
    }
    assertEquals(expected, actual);
  }

  @Test
  void memberOffsetsAreTheKernels() {
    assertEquals(8, KvmLayouts.offset(KvmLayouts.KVM_USERSPACE_MEMORY_REGION, "guest_phys_addr"));
    assertEquals(24, KvmLayouts.offset(KvmLayouts.KVM_USERSPACE_MEMORY_REGION, "userspace_addr"));
    assertEquals(8, KvmLayouts.offset(KvmLayouts.KVM_DIRTY_LOG, "dirty_bitmap"));
    assertEquals(4, KvmLayouts.offset(KvmLayouts.KVM_CLEAR_DIRTY_LOG, "num_pages"));
    assertEquals(8, KvmLayouts.offset(KvmLayouts.KVM_CLEAR_DIRTY_LOG, "first_page"));
    assertEquals(16, KvmLayouts.offset(KvmLayouts.KVM_CLEAR_DIRTY_LOG, "dirty_bitmap"));
    assertEquals(8, KvmLayouts.offset(KvmLayouts.KVM_ENABLE_CAP, "args"));
    assertEquals(4, KvmLayouts.offset(KvmLayouts.KVM_DIRTY_GFN, "slot"));
    assertEquals(8, KvmLayouts.offset(KvmLayouts.KVM_DIRTY_GFN, "offset"));
    assertEquals(64, KvmLayouts.offset(KvmLayouts.KVM_REGS, "r8"));
    assertEquals(120, KvmLayouts.offset(KvmLayouts.KVM_REGS, "r15"));
    assertEquals(128, KvmLayouts.offset(KvmLayouts.KVM_REGS, "rip"));
    assertEquals(136, KvmLayouts.offset(KvmLayouts.KVM_REGS, "rflags"));
    assertEquals(120 + 12, KvmLayouts.offset(KvmLayouts.KVM_SREGS, "ss", "selector"));
    assertEquals(16, KvmLayouts.offset(KvmLayouts.KVM_SEGMENT, "dpl"));
    assertEquals(19, KvmLayouts.offset(KvmLayouts.KVM_SEGMENT, "l"));
    assertEquals(22, KvmLayouts.offset(KvmLayouts.KVM_SEGMENT, "unusable"));
    assertEquals(208, KvmLayouts.offset(KvmLayouts.KVM_SREGS, "idt"));
    assertEquals(224, KvmLayouts.offset(KvmLayouts.KVM_SREGS, "cr0"));
    assertEquals(240, KvmLayouts.offset(KvmLayouts.KVM_SREGS, "cr3"));
    assertEquals(264, KvmLayouts.offset(KvmLayouts.KVM_SREGS, "efer"));
    assertEquals(280, KvmLayouts.offset(KvmLayouts.KVM_SREGS, "interrupt_bitmap"));
    assertEquals(1, KvmLayouts.offset(KvmLayouts.KVM_RUN, "immediate_exit"));
    assertEquals(8, KvmLayouts.offset(KvmLayouts.KVM_RUN, "exit_reason"));
    assertEquals(32, KvmLayouts.offset(KvmLayouts.KVM_RUN, "io", "direction"));
    assertEquals(33, KvmLayouts.offset(KvmLayouts.KVM_RUN, "io", "size"));
    assertEquals(34, KvmLayouts.offset(KvmLayouts.KVM_RUN, "io", "port"));
    assertEquals(36, KvmLayouts.offset(KvmLayouts.KVM_RUN, "io", "count"));
    assertEquals(40, KvmLayouts.offset(KvmLayouts.KVM_RUN, "io", "data_offset"));
    assertEquals(48, KvmLayouts.offset(KvmLayouts.KVM_RUN, "mmio", "len"));
    assertEquals(36, KvmLayouts.offset(KvmLayouts.KVM_RUN, "internal", "ndata"));
    assertEquals(48, KvmLayouts.offset(KvmLayouts.KVM_RUN, "memory_fault", "size"));
  }

  @Test
  void aMemberThatDoesNotExistIsNamed() {
    var failure =
        assertThrows(
            IllegalArgumentException.class,
            () -> KvmLayouts.offset(KvmLayouts.KVM_RUN, "io", "nonsense"));
    assertEquals(true, failure.getMessage().contains("io.nonsense"), failure.getMessage());
  }
}
