# What both builds of messages have to repair where ROS comes as wheels of PyPI.

# The wheels export the Python headers of the machine that built them, and CMake stops at a folder
# that does not exist. On a ROS distribution the folders exist and nothing changes.
get_property(imported DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target IN LISTS imported)
  get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
  if(folders MATCHES "^/opt/python/")
    foreach(folder IN LISTS folders)
      if(NOT EXISTS "${folder}")
        set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "")
      endif()
    endforeach()
  endif()
endforeach()

# The Python headers of this machine serve this build alone. Exported, they would be the fault
# repaired above, and CMake refuses to export a folder inside the source, where .venv may lie.
function(keep_python_headers_out_of_export package)
  set(generator_py ${package}__rosidl_generator_py)
  get_target_property(folders ${generator_py} INTERFACE_INCLUDE_DIRECTORIES)
  if(folders)
    set_target_properties(${generator_py} PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "$<BUILD_INTERFACE:${folders}>")
  endif()
endfunction()
