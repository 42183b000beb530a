package dev.tidemark.ffm;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.lang.reflect.Field;
import org.junit.jupiter.api.Test;

class ErrnoTest {
  @Test
  void everyNumberHasItsName() throws IllegalAccessException {
    for (Field field : Errno.class.getFields()) {
      assertEquals(field.getName(), Errno.name(field.getInt(null)));
    }
    for (int none : new int[] {-1, 0, 41, 58, 134, 999}) {
      assertEquals("errno " + none, Errno.name(none));
    }
    assertEquals("EHWPOISON", Errno.name(133));
  }

  @Test
  void anExceptionNamesCallErrorAndAdvice() {
    var plain = new LinuxException("open(/dev/kvm)", Errno.EACCES);
    assertEquals("open(/dev/kvm): EACCES (13)", plain.getMessage());
    assertEquals(Errno.EACCES, plain.errno());
    var advised = new LinuxException("open(/dev/kvm)", Errno.EACCES, "join the group kvm");
    assertEquals("open(/dev/kvm): EACCES (13): join the group kvm", advised.getMessage());
  }
}
